//! The simulated driver: once with nothing odd but time, once very odd.

use super::{Client, Rig};
use millrace_io::sim::{ClientEnd, Rates, World};
use millrace_io::{Disk, Driver, IoError};
use std::net::SocketAddr;
use std::path::PathBuf;

const ROOT: &str = "/data/node";

struct Simulated(World);

impl Simulated {
    fn new(name: &str, rates: Rates) -> Simulated {
        let world = World::new(name.len() as u64, rates);
        world.disk(1).make_directories(&PathBuf::from(ROOT)).unwrap();
        Simulated(world)
    }
}

macro_rules! rig {
    ($name:ident, $rates:expr) => {
        pub struct $name(Simulated);

        impl Rig for $name {
            fn new(name: &str) -> $name {
                $name(Simulated::new(name, $rates))
            }

            fn driver(&mut self) -> Box<dyn Driver> {
                Box::new(self.0.0.driver(1))
            }

            fn pass(&mut self) {
                self.0.0.step();
            }

            fn root(&self) -> PathBuf {
                PathBuf::from(ROOT)
            }

            fn connect(&mut self, address: SocketAddr) -> Box<dyn Client> {
                Box::new(Outside(self.0.0.connect(address)))
            }
        }
    };
}

rig!(Calm, Rates::CALM);
rig!(Odd, Rates { short_one_in: 3, accept_ends_one_in: 2, slow_one_in: 10 });

struct Outside(ClientEnd);

impl Client for Outside {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, IoError> {
        self.0.send(bytes)
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, IoError> {
        self.0.receive()
    }

    fn finish(&mut self) {
        self.0.finish();
    }

    fn reset(self: Box<Self>) {
        self.0.reset();
    }
}
