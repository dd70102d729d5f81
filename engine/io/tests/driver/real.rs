//! The drivers of the system, on io_uring and without: a scratch directory, and TCP clients.

use super::{Client, Rig};
use millrace_io::{Config, Driver, IoError, PortableDriver, UringDriver};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, kind: &str) -> Scratch {
        let root = std::env::temp_dir().join(format!("millrace-{kind}-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        Scratch(root)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

macro_rules! rig {
    ($name:ident, $kind:literal, $driver:expr) => {
        pub struct $name(Scratch);

        impl Rig for $name {
            fn new(name: &str) -> $name {
                $name(Scratch::new(name, $kind))
            }

            fn driver(&mut self) -> Box<dyn Driver> {
                Box::new($driver.unwrap())
            }

            fn pass(&mut self) {}

            fn root(&self) -> PathBuf {
                self.0.0.clone()
            }

            fn connect(&mut self, address: SocketAddr) -> Box<dyn Client> {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nonblocking(true).unwrap();
                Box::new(Tcp(stream))
            }
        }
    };
}

// A small ring, so that full queues are met too.
rig!(Uring, "uring", UringDriver::new(Config { submissions: 8, completions: 16 }));
rig!(Portable, "portable", PortableDriver::new());

struct Tcp(TcpStream);

impl Client for Tcp {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, IoError> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => Ok(result?),
        }
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, IoError> {
        let mut bytes = vec![0; 64 << 10];
        match self.0.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            result => {
                bytes.truncate(result?);
                Ok(Some(bytes))
            }
        }
    }

    fn finish(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self: Box<Self>) {
        // Closing with bytes unread makes the system reset the connection.
        drop(self);
    }
}
