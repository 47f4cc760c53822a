//! Updates of the configuration: what is in flight stays so, and what was found for other settings leaves no pages behind.

use serde_json::{Value, json};
use tidegate_harness::Gate;
use tidegate_harness::client::Call;
use tidegate_harness::envoy::{Envoy, Listener};
use tidegate_harness::upstream::Behaviour;

use crate::support::{Rig, volley, volley_beside};
use crate::{fixed, listener, shedding, with_1_2_and_4_workers};

with_1_2_and_4_workers!(what_is_in_flight_for_a_tenant_is_so_after_an_update_of_its_limit);

async fn rig(workers: u32, listener: Listener) -> Rig {
    Rig::built(workers, |builder, upstream| {
        let cluster = tidegate_harness::envoy::Cluster::new("upstream", upstream.address());
        builder.cluster(cluster).dynamic_listeners().listener(listener)
    })
    .await
}

async fn what_is_in_flight_for_a_tenant_is_so_after_an_update_of_its_limit(workers: u32) {
    let config = |limit: u32, max_keys: u32| {
        listener(
            "main",
            &shedding(json!({"limit": fixed(limit), "key": [{"header": "x-tenant"}], "max_keys": max_keys})),
        )
    };
    // The control: with other keys they are other bulkheads.
    for (max_keys, admitted) in [(4, 2), (5, 6)] {
        let mut rig = rig(workers, config(4, 4)).await;
        let gate = Gate::new();
        rig.upstream.always(Behaviour::respond(200).hold(&gate));
        let call = |_| Call::get("/").header("x-tenant", "a");
        let before = volley_beside(rig.main(), 10, call);
        rig.wait_for_decisions("p", "overloaded", 6).await;
        rig.envoy.update_listeners(&[config(6, max_keys)]).await.unwrap();
        let after = volley_beside(rig.main(), 10, call);
        rig.wait_for_decisions("p", "overloaded", 6 + 10 - admitted).await;
        gate.open();
        assert_eq!(before.await.unwrap().tally().admitted(), 4);
        assert_eq!(after.await.unwrap().tally().admitted(), admitted as usize);
        rig.wait_for_idle("p").await;
        assert_eq!(volley(rig.main(), 6, call).await.tally().admitted(), 6);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_changes_of_a_limit_with_many_keys_take_no_pages_beyond_its_places() {
    const MEGABYTE: u64 = 1 << 20;
    let _others = crate::MACHINE.read().await;
    // The pages of 20 000 keys are more than 4 MB: forty changes more than there are places would leave 160 MB behind.
    let config = |change: u32| -> Value {
        let limit = json!({"algorithm": "aimd", "initial": 100 + change, "max": 1000});
        shedding(json!({"limit": limit, "key": [{"header": "x-tenant"}], "max_keys": 20_000}))
    };
    let mut rig = rig(2, listener("main", &config(1))).await;
    let update = async |rig: &mut Rig, change: u32| {
        rig.envoy.update_listeners(&[listener("main", &config(change))]).await.unwrap();
        rig.wait_for_stat("tidegate_concurrency_limit", &[("policy", "p")], 100 + change).await;
        let tenant = move |turn: usize| Call::get("/").header("x-tenant", format!("{change}/{turn}"));
        assert_eq!(volley(rig.main(), 8, tenant).await.tally().admitted(), 8);
    };
    // What the proxy itself keeps of an update is there by then, too.
    for change in 2..=20 {
        update(&mut rig, change).await;
    }
    let resident = |envoy: &Envoy| envoy.resident_bytes().unwrap();
    let before = resident(&rig.envoy);
    for change in 21..=60 {
        update(&mut rig, change).await;
    }
    let grown = resident(&rig.envoy).saturating_sub(before);
    println!("updates: 40 changes of a limit with 20 000 keys: {:.1} MB more", grown as f64 / MEGABYTE as f64);
    assert!(grown < 60 * MEGABYTE, "{grown} bytes");
}
