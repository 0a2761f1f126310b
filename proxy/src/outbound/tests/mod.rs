//! The route over real sockets, a file for each kind of promise.

mod captured;
mod live;
mod peers;
mod tunnels;
