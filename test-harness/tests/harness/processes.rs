//! Envoy as a process: started, refused, stopped, reconfigured, and asked for its stats.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_harness::client::{self, Call};
use tidegate_harness::envoy::{Cluster, Envoy, HttpFilter, Listener, Route, Tidegate};
use tidegate_harness::upstream::Upstream;

use crate::{SOON, plain};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_through_envoy_to_the_upstream_and_back() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let response = client::send(envoy.listener(), Call::get("/a?b=c").header("x-test", "yes")).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "ok\n"));
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].path.as_str(), seen[0].header("x-test")), (1, "/a?b=c", Some("yes")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_filter_and_several_workers_can_be_configured() {
    let upstream = Upstream::start().await.unwrap();
    let listener = Listener::new("main").filter(HttpFilter::local_ratelimit(3, "3600s"));
    let builder = Envoy::builder().concurrency(4).cluster(Cluster::new("upstream", upstream.address()));
    let envoy = builder.listener(listener).start().await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(client::get(envoy.listener(), "/").await.unwrap().status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(upstream.total(), 3);
    let stats = envoy.stats().await.unwrap();
    assert_eq!(stats.stat("envoy_server_concurrency", &[]), Some(4.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_are_read_with_their_labels() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let before = envoy.stats().await.unwrap();
    for status in ["200", "503", "503"] {
        client::send(envoy.listener(), Call::get("/").header("x-upstream-status", status)).await.unwrap();
    }
    let class = |class| [("envoy_cluster_name", "upstream"), ("envoy_response_code_class", class)];
    let grown = envoy
        .wait_for_stats(SOON, |stats| match stats.since(&before).count("envoy_cluster_upstream_rq_xx", &[]) {
            3.0 => Ok(stats.since(&before)),
            other => Err(format!("{other} requests are counted, not 3")),
        })
        .await
        .unwrap();
    assert_eq!(grown.stat("envoy_cluster_upstream_rq_xx", &class("2")), Some(1.0));
    assert_eq!(grown.stat("envoy_cluster_upstream_rq_xx", &class("5")), Some(2.0));
    assert_eq!(grown.stat("envoy_cluster_upstream_rq_xx", &class("4")), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_envoy_refuses_gives_an_error_with_the_log() {
    let filter = json!({"name": "none", "typed_config": {"@type": "type.googleapis.com/no.such.Filter"}});
    let error = Envoy::builder().listener(Listener::new("main").filter(filter)).start().await.unwrap_err();
    assert_eq!(error.exit.as_deref(), Some("exit status: 1"));
    assert!(error.log.contains("no.such.Filter"), "{error}");
    assert!(error.to_string().contains("Envoy ended while starting"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_is_no_wasm_gives_an_error_with_the_log() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "no wasm").unwrap();
    let filter = Tidegate::with_module(file.path().to_owned()).text("{}");
    let error = Envoy::builder().listener(Listener::new("main").filter(filter)).start().await.unwrap_err();
    assert_eq!(error.exit.as_deref(), Some("exit status: 1"));
    assert!(error.log.contains("Failed to load Wasm code"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_wasm_runtime_is_said_plainly() {
    let code = json!({"local": {"inline_bytes": "AGFzbQEAAAA="}});
    let filter = json!({
        "name": "wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {"vm_config": {"runtime": "envoy.wasm.runtime.missing", "code": code}}
        }
    });
    let error = Envoy::builder().listener(Listener::new("main").filter(filter)).start().await.unwrap_err();
    assert!(error.reason.contains("no V8 runtime"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_envoy_answers_only_after_it_runs_on() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let stop = Duration::from_millis(300);
    envoy.pause().await.unwrap();
    let start = Instant::now();
    let asking = tokio::spawn(client::get(envoy.listener(), "/"));
    // The time the process stands still is what is tested here; nothing waits for it.
    tokio::time::sleep(stop).await;
    assert_eq!(upstream.total(), 0);
    envoy.unpause().unwrap();
    assert_eq!(asking.await.unwrap().unwrap().status, 200);
    assert!(start.elapsed() >= stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_listeners_replace_the_old_at_the_same_port_and_bad_ones_do_not() {
    let upstream = Upstream::start().await.unwrap();
    let builder = Envoy::builder().cluster(Cluster::new("upstream", upstream.address()));
    let direct = |status| Listener::new("main").route(Route::respond("/", status));
    let mut envoy = builder.dynamic_listeners().listener(direct(201)).start().await.unwrap();
    let address = envoy.listener();
    assert_eq!(client::get(address, "/").await.unwrap().status, 201);

    envoy.update_listeners(&[direct(202)]).await.unwrap();
    assert_eq!(envoy.listener(), address);
    assert_eq!(client::get(address, "/").await.unwrap().status, 202);

    let bad = json!({"name": "none", "typed_config": {"@type": "type.googleapis.com/no.such.Filter"}});
    let error = envoy.update_listeners(&[direct(203).filter(bad)]).await.unwrap_err();
    assert!(error.to_string().contains("no.such.Filter"), "{error}");
    assert_eq!(client::get(address, "/").await.unwrap().status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_timeouts_and_retries_are_envoys_own() {
    let upstream = Upstream::start().await.unwrap();
    let listener = Listener::new("main")
        .route(Route::prefix("/slow", "upstream").name("slow").timeout("0.05s"))
        .route(Route::prefix("/again", "upstream").retry("5xx", 2))
        .access_log("%ROUTE_NAME% %RESPONSE_CODE% %RESPONSE_FLAGS%");
    let builder = Envoy::builder().cluster(Cluster::new("upstream", upstream.address()));
    let envoy = builder.listener(listener).start().await.unwrap();

    let slow = client::send(envoy.listener(), Call::get("/slow").header("x-upstream-fault", "never")).await.unwrap();
    assert_eq!(slow.status, 504);
    let again = Call::get("/again").header("x-upstream-status", "503");
    assert_eq!(client::send(envoy.listener(), again).await.unwrap().status, 503);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.path == "/again").count(), 3);
    assert_eq!(client::get(envoy.listener(), "/elsewhere").await.unwrap().status, 404);

    let lines = envoy.wait_for_access_log("main", 3, SOON).await.unwrap();
    assert_eq!(lines[0], "slow 504 UT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_and_its_folder_are_gone_when_the_handle_is() {
    let upstream = Upstream::start().await.unwrap();
    let envoy = plain(&upstream).await;
    let (process, address) = (envoy.process_id().unwrap(), envoy.listener());
    drop(envoy);
    assert!(client::get(address, "/").await.is_err());
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
}
