//! A configuration made ready to decide: matchers and index built, controls opened or taken over.
//!
//! Controls keep their state with the host, under a name made of the policy, the control and its settings: a control
//! whose settings did not change finds its state again after an update, and every worker, also one whose VM was just
//! made anew, joins what the others hold. Circuit breakers are taken over from the engines before instead, where one of
//! them has the same: requests that are under way there are judged for the breakers that go on.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::config::{self, BasisPoints, Config, Mode, Scope};
use crate::control::Nanos;
use crate::control::circuit_breaker::{self, CircuitBreakers};
use crate::control::rate_limit::{self, RateLimiter};
use crate::matching::{Index, KeyBuf, KeyExtractor};
use crate::share::{ShareError, SharedState};

use super::decide::key_hash;
use super::headers::policy_item;
use super::limits::MadeOf;
use super::quotas::Quotas;
use super::shedding::Concurrency;
use super::stats::{self, MetricId};
use super::throttling::Throttling;
use super::waits::Waits;
use super::{Engine, Env, MOST_OWN_BYTES, Workspace};

/// A policy made ready.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    pub shadow: bool,
    pub enforce: BasisPoints,
    pub request_limits: Option<config::RequestLimits>,
    pub breaker: Option<Breaker>,
    pub rates: Vec<Rate>,
    pub concurrency: Option<Concurrency>,
    pub throttling: Option<Throttling>,
    /// Where it may hold requests.
    pub waits: Option<Waits>,
    pub responses: config::Responses,
    pub headers: config::ResponseHeaders,
    /// The counter of `admitted`, or in shadow mode `shadow_admitted`.
    pub admitted: Option<MetricId>,
}

/// A policy's circuit breakers.
#[derive(Debug)]
pub(super) struct Breaker {
    pub settings: config::CircuitBreaker,
    pub key: KeyExtractor,
    /// The key that was asked for last, and its hash: most requests go to few upstreams.
    pub last: (KeyBuf, u64),
    pub breakers: Rc<RefCell<CircuitBreakers>>,
}

/// One rate limit.
#[derive(Debug)]
pub(super) struct Rate {
    pub name: String,
    pub settings: config::RateLimit,
    pub key: KeyExtractor,
    pub quotas: Quotas,
    /// What clients are told of each quota, whatever is left of it.
    pub listed: Vec<String>,
    pub limiter: RateLimiter,
}

/// Nanoseconds of a duration. Beyond 584 years it would wrap to next to nothing: it stays at the most instead.
pub(super) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Makes a configuration ready. State is taken over from `previous`, the engines that still serve requests, the newest
    /// first, where settings are the same. `scope` tells instances of the plugin in one proxy apart; those of the same
    /// scope share what is named the same.
    ///
    /// # Errors
    /// A sentence, when the host refuses what a control needs or a pattern cannot be compiled.
    pub fn new(config: &Config, previous: &[&Self], scope: &str, env: &mut Env<'_>) -> Result<Self, String> {
        let active: Vec<_> =
            config.policies.iter().filter(|policy| config.mode.max(policy.mode) != Mode::Off).collect();
        let matches: Vec<_> = active.iter().map(|policy| policy.matches.clone()).collect();
        let index = Index::new(&matches)?;
        check_own_memory(&active)?;
        let scope = format!("{scope}/{:08x}", process(env.hash_key));
        let policies = active
            .into_iter()
            .map(|policy| compile(policy, config.mode.max(policy.mode), previous, &scope, env))
            .collect::<Result<_, _>>()?;
        let engine = Self { policies, index, work: Workspace::default() };
        engine.succeed(previous, env);
        engine.speak_for(previous, env);
        Ok(engine)
    }

    pub(super) fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == name)
    }
}

/// Whether all that limits keep in each worker has room there. Asked before any of it is opened, since a VM that runs out
/// of memory is gone, and with it all that it serves.
///
/// # Errors
/// A sentence that names the limit that is too much, the sum up to it, and the bound.
fn check_own_memory(active: &[&config::Policy]) -> Result<(), String> {
    let mut sum = 0u64;
    let mut add = |place: &str, bytes: u64, max_keys: u32| {
        // A sum past u64::MAX is more than the bound, too.
        sum = sum.saturating_add(bytes);
        if sum <= MOST_OWN_BYTES {
            return Ok(());
        }
        Err(format!(
            "{place}: with its {bytes} bytes for `max_keys` {max_keys} the limits keep {sum} bytes in each worker, and the most \
             is {MOST_OWN_BYTES}"
        ))
    };
    for policy in active {
        for limit in policy.rate_limits.iter().filter(|limit| limit.scope == Scope::Worker) {
            let place = format!("policy {}: rate limit {}", policy.name, limit.name);
            let bytes = RateLimiter::bytes(&rate_settings(limit, &Quotas::new(limit)))
                .map_err(|error| format!("{place}: its table cannot be laid out ({error:?})"))?;
            add(&place, bytes, limit.max_keys)?;
        }
        if let Some(shedding) = &policy.load_shedding {
            let place = format!("policy {}: load shedding", policy.name);
            add(&place, MadeOf::new(shedding, false).bytes(), shedding.max_keys)?;
        }
    }
    Ok(())
}

fn compile(
    policy: &config::Policy,
    mode: Mode,
    previous: &[&Engine],
    scope: &str,
    env: &mut Env<'_>,
) -> Result<Policy, String> {
    let mut all_before = previous.iter().filter_map(|engine| engine.policy(&policy.name));
    let shadow = mode == Mode::Shadow;
    // What a breaker in shadow learns must open none that is enforced, nor the other way round.
    let mut breakers_before =
        all_before.clone().filter(|before| before.shadow == shadow).filter_map(|before| before.breaker.as_ref());
    let before = all_before.next();
    let name = policy.name.as_str();
    let failed = |control: &str, error: ShareError| {
        format!("policy {name}: the host keeps no shared state for the {control} ({error:?})")
    };
    let breaker = match &policy.circuit_breaker {
        None => None,
        Some(settings) => Some(Breaker {
            key: KeyExtractor::new(&settings.key),
            last: (KeyBuf::new(), key_hash(env.hash_key, &KeyBuf::new())),
            breakers: match breakers_before.find(|kept| kept.settings == *settings) {
                Some(kept) => Rc::clone(&kept.breakers),
                None => {
                    let place = format!("{scope}/{name}/circuit_breaker");
                    let (own, owner) = (breaker_settings(settings), digest(&(settings, shadow)));
                    let opened = CircuitBreakers::reusing(own, env.share, &place, owner, env.now);
                    Rc::new(RefCell::new(opened.map_err(|error| failed("circuit breaker", error))?))
                }
            },
            settings: settings.clone(),
        }),
    };
    let mut rates = Vec::with_capacity(policy.rate_limits.len());
    for settings in &policy.rate_limits {
        let place = format!("{scope}/{name}/rate_limit/{}", settings.name);
        // What a balance means. The rest can change without it. What a shadow charges is nobody else's to pay.
        let balance = (&settings.key, settings.algorithm, settings.quota, &settings.overrides, settings.max_keys);
        let owner = digest(&(balance, shadow));
        let share = share_of(settings, env);
        let quotas = Quotas::new(settings);
        let limiter = RateLimiter::reusing(&rate_settings(settings, &quotas), share, &place, owner, env.now);
        let mut rate = Rate {
            name: settings.name.clone(),
            key: KeyExtractor::new(&settings.key),
            listed: quotas.all().map(|quota| listed(&settings.name, quota)).collect(),
            quotas,
            limiter: limiter.map_err(|error| failed("rate limit", error))?,
            settings: settings.clone(),
        };
        rate.tell_place(name, env);
        rates.push(rate);
    }
    let concurrency = match &policy.load_shedding {
        None => None,
        Some(settings) => Some(Concurrency::new(settings, (name, shadow), scope, before, env)?),
    };
    let throttle = policy.load_shedding.as_ref().and_then(|shedding| shedding.throttle.as_ref());
    let throttling = throttle.map(|throttle| Throttling::new(throttle, (name, shadow), scope, env)).transpose()?;
    let admitted = if shadow { "shadow_admitted" } else { "admitted" };
    Ok(Policy {
        name: policy.name.clone(),
        shadow,
        enforce: policy.enforce,
        request_limits: policy.request_limits.clone(),
        breaker,
        rates,
        responses: policy.responses.clone(),
        headers: policy.headers,
        admitted: env.stats.id(env.metrics, stats::REQUESTS, &[name, admitted]),
        concurrency,
        throttling,
        waits: Waits::new(policy, scope, before, env)?,
    })
}

/// Where a limit's balances live.
pub(super) fn share_of<'e>(settings: &config::RateLimit, env: &Env<'e>) -> &'e dyn SharedState {
    match settings.scope {
        Scope::Proxy => env.share,
        Scope::Worker => env.own,
    }
}

/// The same for equal settings on every worker and in every VM.
pub(super) fn digest(settings: &impl Hash) -> u64 {
    let mut hasher = SipHasher13::new();
    settings.hash(&mut hasher);
    hasher.finish()
}

/// Tells this process from the one before it: at a hot restart Envoy adds what the numbers of the old process say to those
/// of the same name in the new one, every few seconds, and takes it off again when the old one is gone. To a breaker both would
/// look like calls, to a concurrency limit like requests in flight. Nothing of the key can be read from it.
fn process((first, second): (u64, u64)) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(first, second);
    hasher.write(b"process");
    // Its lower half: two processes in succession are alike once in four thousand million.
    (hasher.finish() & u64::from(u32::MAX)) as u32
}

fn breaker_settings(settings: &config::CircuitBreaker) -> circuit_breaker::Settings {
    circuit_breaker::Settings {
        max_keys: settings.max_keys,
        window: match settings.window {
            config::Window::Time(duration) => circuit_breaker::Window::Time(nanos(duration)),
            config::Window::Count(calls) => circuit_breaker::Window::Count(calls),
        },
        minimum_calls: settings.minimum_calls,
        failure_rate_threshold: u32::from(settings.failure_rate_threshold.0),
        slow_call_duration: settings.slow_call_duration.map(nanos),
        slow_call_rate_threshold: u32::from(settings.slow_call_rate_threshold.0),
        consecutive_failures: settings.consecutive_failures,
        open_duration: nanos(settings.open_duration),
        open_duration_max: nanos(settings.open_duration_max),
        probes: settings.half_open.probes,
        probe_timeout: nanos(settings.half_open.timeout),
        recovery_ramp: settings.recovery_ramp.map(nanos),
        honor_retry_after: settings.honor_retry_after,
        mode: match settings.state {
            config::BreakerControl::Auto => circuit_breaker::Mode::Auto,
            config::BreakerControl::ForcedOpen => circuit_breaker::Mode::ForcedOpen,
            config::BreakerControl::Disabled => circuit_breaker::Mode::Disabled,
        },
    }
}

fn listed(limit: &str, quota: &config::Quota) -> String {
    policy_item(limit, quota.rate.count, quota.rate.period.as_secs())
}

fn rate_settings(settings: &config::RateLimit, quotas: &Quotas) -> rate_limit::Settings {
    let quota = |quota: &config::Quota| rate_limit::Quota {
        count: quota.rate.count,
        period: nanos(quota.rate.period),
        burst: quota.burst,
    };
    rate_limit::Settings {
        quotas: quotas.all().map(quota).collect(),
        algorithm: match settings.algorithm {
            config::RateAlgorithm::TokenBucket => rate_limit::Algorithm::TokenBucket,
            config::RateAlgorithm::SlidingWindow => rate_limit::Algorithm::SlidingWindow,
            config::RateAlgorithm::FixedWindow => rate_limit::Algorithm::FixedWindow,
        },
        max_keys: if settings.key.is_empty() { 1 } else { settings.max_keys },
    }
}
