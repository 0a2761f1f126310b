//! The route in one process, between clients and upstreams that the tests play.

mod answers;
mod budgets;
mod filtered;
mod peers;
mod remembered;
mod secured;
mod servers;
mod sockets;
