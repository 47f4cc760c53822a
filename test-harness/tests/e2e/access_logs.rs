//! What access logs can say of a decision.

use serde_json::json;
use tidegate_harness::client;

use crate::support::{Rig, SOON, main_listener};
use crate::with_one_and_four_workers;

with_one_and_four_workers!(access_logs_carry_the_decision);

async fn access_logs_carry_the_decision(workers: u32) {
    let limits = json!([{"name": "all", "rate": "1/h"}]);
    let config = json!({"policies": [
        {"name": "enforced", "match": {"path": "/enforced"}, "rate_limits": limits},
        {"name": "shadowed", "mode": "shadow", "match": {"path": "/shadowed"}, "rate_limits": limits},
    ]});
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %FILTER_STATE(wasm.tidegate:PLAIN)%";
    let rig = Rig::with(workers, [main_listener(&config).access_log(format)]).await;
    for path in ["/enforced", "/enforced", "/shadowed", "/shadowed", "/unmatched"] {
        client::get(rig.main(), path).await.unwrap();
    }
    let mut lines = rig.envoy.wait_for_access_log("main", 5, SOON).await.unwrap();
    // Workers write in their own order.
    lines.sort();
    let mut expected = [
        "/enforced 200 via_upstream admitted",
        "/enforced 429 tidegate_rate_limited rate_limited;policy=enforced;limit=all",
        "/shadowed 200 via_upstream admitted",
        "/shadowed 200 via_upstream shadow_rate_limited;policy=shadowed;limit=all",
        "/unmatched 200 via_upstream -",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}
