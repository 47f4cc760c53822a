//! What a client is told when other workers have always been first.

use std::cell::RefCell;
use std::collections::HashMap;

use tidegate::config;
use tidegate::engine::stats::{Kind, MetricId, Metrics, Registry};
use tidegate::engine::{Decision, Engine, Env, LocalReply, Permit, SplitMix64};
use tidegate::matching::{HeaderMap, Request};
use tidegate::share::{Memory, ShareError};

use super::counting::Counting;
use super::requests::{Proxy, encode};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[derive(Default)]
struct Counts(RefCell<Vec<(String, i64)>>);

impl Metrics for Counts {
    fn define(&self, _: Kind, name: &str) -> Option<MetricId> {
        let mut counts = self.0.borrow_mut();
        counts.push((name.to_owned(), 0));
        Some(MetricId(u32::try_from(counts.len() - 1).unwrap()))
    }

    fn add(&self, id: MetricId, delta: i64) {
        self.0.borrow_mut()[id.0 as usize].1 += delta;
    }

    fn record(&self, _: MetricId, _: u64) {}
}

/// A request under this configuration, asked a second time as other workers are always first, or are not. What becomes of it,
/// and what is counted.
fn asked(configuration: &str, contended: bool) -> (Decision, HashMap<String, i64>) {
    let (share, own, counts, stats) = (Counting::default(), Memory::new(), Counts::default(), Registry::default());
    let mut random = SplitMix64::new(1);
    let mut env = Env {
        now: 1_000_000_000,
        share: &share,
        own: &own,
        random: &mut random,
        metrics: &counts,
        stats: &stats,
        may_wait: true,
        hash_key: (1, 2),
    };
    let config = config::read(configuration.as_bytes()).unwrap();
    let mut engine = Engine::new(&config, &[], "test", &mut env).unwrap();
    let raw = encode(&[(":method", "GET"), (":path", "/"), (":authority", "example.com"), (":scheme", "http")]);
    let proxy = Proxy::new(&[]);
    let request = Request::new(HeaderMap::parse(&raw).unwrap(), &proxy);
    share.fail_store.set(contended.then_some(ShareError::Conflict));
    let mut permit = Permit::default();
    let decision = engine.decide(&request, &mut permit, &mut env);
    (decision, counts.0.into_inner().into_iter().collect())
}

const CONTENDED: &str = "tidegate_rate_limit_contended_total.policy.p.limit.r";

fn names(reply: &LocalReply) -> Vec<&str> {
    reply.headers.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_request_that_lost_every_race_is_refused_and_told_neither_a_wait_nor_what_is_left() {
    for limits in
        [r#"{"name": "r", "rate": "10/s"}"#, r#"{"name": "r", "rate": "10/s"}, {"name": "other", "rate": "10/s"}"#]
    {
        let config = format!(
            r#"{{"policies": [{{"name": "p", "headers": {{"ratelimit": "both"}}, "rate_limits": [{limits}]}}]}}"#
        );
        let (decision, counts) = asked(&config, true);
        let Decision::Rejected { reply, line } = decision else { panic!("{decision:?}") };
        assert_eq!((reply.status, line.as_str()), (429, "rate_limited;policy=p;limit=r"));
        assert_eq!(names(&reply), ["x-tidegate-reason", "content-type"]);
        assert!(!reply.body.contains("retry-after"), "{}", reply.body);
        assert_eq!((counts[CONTENDED], counts.get("tidegate_errors_total.kind.rate_limit")), (1, None));
        // The control: nobody is in the way.
        let (decision, counts) = asked(&config, false);
        assert!(matches!(decision, Decision::Admitted { .. }), "{decision:?}");
        assert!(!counts.contains_key(CONTENDED));
    }
}

#[test]
fn in_shadow_it_is_counted_and_goes_on() {
    let config = r#"{"mode": "shadow", "policies": [{"name": "p", "rate_limits": [{"name": "r", "rate": "10/s"}]}]}"#;
    let (decision, counts) = asked(config, true);
    assert_eq!(decision, Decision::Admitted { shadow: Some("shadow_rate_limited;policy=p;limit=r".to_owned()) });
    assert_eq!((counts[CONTENDED], counts["tidegate_requests_total.policy.p.decision.shadow_rate_limited"]), (1, 1));
}
