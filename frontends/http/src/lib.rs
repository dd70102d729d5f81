//! HTTP listeners on actix-web's own thread: no shard waits for one, and none for a shard but for as long as it was told.
//!
//! 1. [`start`] takes a bound socket and what is to be served on it; the server runs on a thread of its own until [`Server::stop`].
//! 2. What is not found, or asked in another way than is served, is answered in JSON, `{"message", "code"}`, as on Redpanda's Admin API.
//!
//! Knows nothing of what is served.

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpServer, web};
use millrace_base::value::quote;
use std::fmt;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

pub use actix_web;

/// How long a connection may be silent between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long the head of a request may take, and how long an ended connection may take to close.
const HEAD_MS: Duration = Duration::from_secs(5);
const CLOSE_MS: Duration = Duration::from_secs(1);

/// The longest body that is taken; these listeners answer questions.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Connections that one listener keeps open at once.
const CONNECTIONS_MAX: usize = 256;

/// How long requests under way are waited for when a server stops.
const STOP_SECONDS: u64 = 2;

/// A server that runs.
pub struct Server {
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

/// A server that could not be started.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Serves what `configure` names on `listener`, on a thread called `name`.
///
/// # Errors
/// The thread or its runtime cannot be made.
pub fn start(
    name: &str,
    listener: TcpListener,
    configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> Result<Server, StartError> {
    let (begun, told) = channel();
    let body = move || {
        let system = actix_web::rt::System::new();
        let began = begun.clone();
        let served = system.block_on(async move {
            let app = move || {
                App::new()
                    .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
                    .configure(configure.clone())
                    .default_service(web::to(not_found))
            };
            let server = HttpServer::new(app)
                .workers(1)
                .max_connections(CONNECTIONS_MAX)
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(HEAD_MS)
                .client_disconnect_timeout(CLOSE_MS)
                .shutdown_timeout(STOP_SECONDS)
                .disable_signals()
                .listen(listener)?
                .run();
            let _ = began.send(Ok(server.handle())); // who started it waits
            server.await
        });
        if let Err(error) = served {
            let _ = begun.send(Err(StartError(error.to_string()))); // nobody listens once it has begun
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| StartError(error.to_string()))?;
    match told.recv() {
        Ok(Ok(handle)) => Ok(Server { handle, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError("its thread ended".to_owned())),
    }
}

impl Server {
    /// Takes no more connections and waits a moment for the requests under way.
    pub fn stop(self) {
        // The command is sent at once; its future only tells when all is done, and so does the thread.
        drop(self.handle.stop(true));
        let _ = self.thread.join(); // a panic has ended the process before
    }
}

/// An error, as Redpanda's Admin API writes it.
pub fn problem(status: StatusCode, message: &str) -> actix_web::HttpResponse {
    actix_web::HttpResponse::build(status).content_type("application/json").body(problem_body(status, message))
}

fn problem_body(status: StatusCode, message: &str) -> String {
    let mut text = String::new();
    quote(message, &mut text);
    format!("{{\"message\": {text}, \"code\": {}}}", status.as_u16())
}

async fn not_found(request: actix_web::HttpRequest) -> actix_web::HttpResponse {
    problem(StatusCode::NOT_FOUND, &format!("there is nothing at {}", request.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    fn asked(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_server_answers_refuses_and_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let configure = |config: &mut web::ServiceConfig| {
            config.route("/here", web::get().to(|| async { "it is" }));
        };
        let server = start("test-http", listener, configure).unwrap();
        let head = "Host: x\r\nConnection: close\r\n\r\n";
        assert!(asked(address, &format!("GET /here HTTP/1.1\r\n{head}")).ends_with("it is"));
        let missing = asked(address, &format!("GET /a\"b HTTP/1.1\r\n{head}"));
        assert!(missing.starts_with("HTTP/1.1 404") || missing.starts_with("HTTP/1.1 400"), "{missing}");
        let missing = asked(address, &format!("GET /there HTTP/1.1\r\n{head}"));
        assert!(
            missing.starts_with("HTTP/1.1 404") && missing.ends_with("{\"message\": \"there is nothing at /there\", \"code\": 404}"),
            "{missing}"
        );
        assert!(asked(address, "no request at all\r\n\r\n").starts_with("HTTP/1.1 400"));
        server.stop();
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_problem_is_json_whatever_it_says() {
        let expected = "{\"message\": \"a\\\"\\\\\\n\\u0001\", \"code\": 404}";
        assert_eq!(problem_body(StatusCode::NOT_FOUND, "a\"\\\n\u{1}"), expected);
    }
}
