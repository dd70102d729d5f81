//! The span of a run that counts: what comes before it warms memory, caches and compilers up, what comes after it only drains.
//!
//! One thread opens and closes the window and reads the clocks at both moments; workers ask which phase it is at each answer.

use crate::cpu;
use crate::failure::Outcome;
use crate::report::Report;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    WarmUp,
    Measured,
    Over,
}

#[derive(Default)]
pub struct Window {
    phase: AtomicU8,
}

/// What passed between the opening and the closing.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub seconds: f64,
    pub client_cpu_s: f64,
    pub server_cpu_s: Option<f64>,
}

impl Window {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measured,
            _ => Phase::Over,
        }
    }

    /// Sleeps through warm-up and measurement; ends both early when `failed` says so.
    pub fn run(&self, warm_up: Duration, measured: Duration, server: Option<u32>, failed: &dyn Fn() -> bool) -> Outcome<Span> {
        pause(warm_up, failed);
        let watch = Watch::start(server)?;
        self.phase.store(1, Ordering::Relaxed);
        pause(measured, failed);
        self.phase.store(2, Ordering::Relaxed);
        watch.stop()
    }

    /// Ends the run; for the case that its clock could not be read.
    pub fn close(&self) {
        self.phase.store(2, Ordering::Relaxed);
    }
}

fn pause(time: Duration, failed: &dyn Fn() -> bool) {
    let until = Instant::now() + time;
    while !failed() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// The clocks of a span under way.
pub struct Watch {
    began: Instant,
    client_cpu_s: f64,
    server: Option<(u32, f64)>,
}

impl Watch {
    pub fn start(server: Option<u32>) -> Outcome<Watch> {
        let server = server.map(|pid| cpu::seconds(Some(pid)).map(|seconds| (pid, seconds))).transpose()?;
        Ok(Watch { client_cpu_s: cpu::seconds(None)?, server, began: Instant::now() })
    }

    pub fn stop(self) -> Outcome<Span> {
        let seconds = self.began.elapsed().as_secs_f64();
        let client_cpu_s = cpu::seconds(None)? - self.client_cpu_s;
        let server_cpu_s = self.server.map(|(pid, before)| cpu::seconds(Some(pid)).map(|now| now - before)).transpose()?;
        Ok(Span { seconds, client_cpu_s, server_cpu_s })
    }
}

impl Span {
    /// Throughput and CPU of `bytes` in `requests` within this span. GB and MB are powers of ten.
    pub fn report(&self, report: Report, bytes: u64, requests: u64) -> Report {
        let gb = bytes as f64 / 1e9;
        let report = report
            .figure("seconds", self.seconds)
            .ratio("mb_per_s", bytes as f64 / 1e6, self.seconds)
            .ratio("requests_per_s", requests as f64, self.seconds)
            .ratio("client_cpu_s_per_gb", self.client_cpu_s, gb);
        match self.server_cpu_s {
            Some(cpu_s) => report.ratio("server_cpu_s_per_gb", cpu_s, gb).ratio("server_cores", cpu_s, self.seconds),
            None => report,
        }
    }
}
