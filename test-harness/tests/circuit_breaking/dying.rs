//! VMs that die.

use std::path::PathBuf;
use std::process::Command;

use hyper::HeaderMap;
use tidegate_harness::Step;
use tidegate_harness::client::{Call, Load, Schedule};
use tidegate_harness::envoy::locate;

use crate::support::{Rig, SOON};

/// Tidegate with a callback that traps, built from `test-harness/trap`; what is shipped has none.
pub fn trapping() -> PathBuf {
    let root = locate::repository();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .args(["build", "--quiet", "--offline", "--package", "tidegate-trap", "--target", "wasm32-wasip1"])
        .current_dir(root)
        .status();
    assert!(build.expect("cargo runs").success(), "the trapping module was not built: see above");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("wasm32-wasip1/debug/tidegate_trap.wasm")
}

/// Lets the VM of every worker die that one of many connections comes to.
pub async fn kill_vms(rig: &Rig, workers: u32) {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trap", "1".parse().unwrap());
    let deadly = Call::new("POST", "/deadly").body_steps(vec![Step::Data("x".into()), Step::Trailers(trailers)]);
    let connections = workers as usize * 16;
    let load = Load::new(rig.main(), Schedule::burst(connections)).http2(connections);
    load.calls(move |_, _| deadly.clone()).run().await;
    rig.envoy.wait_for_log("unreachable", 1, SOON).await.expect("no VM has died");
}
