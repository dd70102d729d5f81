//! The admin listener: whether the node is ready, and its metrics.
//!
//! 1. Each question looks at every shard through its [`Observer`] ([`node`]); one that does not answer within [`LOOK_WAIT`] is named.
//! 2. `/metrics` tells all there is, by shard and partition, under names of its own; `/public_metrics` the same sums under the names that
//!    dashboards for Redpanda ask for ([`families`], written as Prometheus' text format 0.0.4).
//! 3. `/v1/status/ready`, `/healthz/ready`, `/healthz/live` answer 200 or 503, in JSON, with what is wrong.
//!
//! Knows nothing of protocols other than its own, and changes nothing.

mod families;
mod metrics;
mod node;
mod public;

pub use node::{Facts, Machine};

use millrace_http::actix_web::{HttpResponse, http::StatusCode, web};
use millrace_http::{Server, StartError, problem};
use millrace_shard::observe::Observer;
use node::Look;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long one shard is waited for: a turn takes some milliseconds at most.
pub const LOOK_WAIT: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the listener tells of.
pub struct Admin {
    pub observers: Vec<Observer>,
    pub facts: Facts,
    /// What the machine and the process look like now.
    pub machine: Box<dyn Fn() -> Machine + Send + Sync>,
    /// The shards turn; before that, recovery may take its time.
    pub has_begun: Arc<AtomicBool>,
}

impl Admin {
    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }
}

/// Serves it on `listener`.
///
/// # Errors
/// [`StartError`].
pub fn start(admin: Admin, listener: TcpListener) -> Result<Server, StartError> {
    let admin = Arc::new(admin);
    millrace_http::start("admin", listener, move |config| {
        config
            .app_data(web::Data::from(Arc::clone(&admin)))
            .route("/metrics", web::get().to(metrics_page))
            .route("/public_metrics", web::get().to(public_page))
            .route("/v1/status/ready", web::get().to(ready))
            .route("/healthz/ready", web::get().to(ready))
            .route("/healthz/live", web::get().to(live));
    })
}

/// Looks at all shards from a thread that may wait.
async fn look(admin: &web::Data<Admin>) -> Result<Look, HttpResponse> {
    let admin = web::Data::clone(admin);
    let looked = web::block(move || {
        let asked: &[Observer] = if admin.has_begun() { &admin.observers } else { &[] };
        Look::at(asked, LOOK_WAIT, (admin.machine)())
    });
    let looked = looked.await;
    looked.map_err(|_| problem(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping"))
}

async fn metrics_page(admin: web::Data<Admin>) -> HttpResponse {
    match look(&admin).await {
        Ok(look) => HttpResponse::Ok().content_type(TEXT).body(metrics::page(&look, &admin.facts)),
        Err(response) => response,
    }
}

async fn public_page(admin: web::Data<Admin>) -> HttpResponse {
    match look(&admin).await {
        Ok(look) => HttpResponse::Ok().content_type(TEXT).body(public::page(&look, &admin.facts)),
        Err(response) => response,
    }
}

/// As Redpanda: `{"status":"ready"}`, or 503 and what is missing.
async fn ready(admin: web::Data<Admin>) -> HttpResponse {
    if !admin.has_begun() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the node is starting");
    }
    let look = match look(&admin).await {
        Ok(look) => look,
        Err(response) => return response,
    };
    match look.not_ready() {
        None => HttpResponse::Ok().content_type("application/json").body("{\"status\":\"ready\"}"),
        Some(why) => problem(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

/// The process runs, and every shard turns once they have begun, whether or not it serves.
async fn live(admin: web::Data<Admin>) -> HttpResponse {
    let look = match look(&admin).await {
        Ok(look) => look,
        Err(response) => return response,
    };
    match look.silent.as_slice() {
        [] => HttpResponse::Ok().content_type("application/json").body("{\"status\":\"live\"}"),
        silent => problem(StatusCode::SERVICE_UNAVAILABLE, &node::silence(silent)),
    }
}
