//! The ring: the Driver trait, memory, io_uring and simulated drivers.
