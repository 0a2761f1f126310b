//! The route over real sockets, a file for each kind of promise.

mod ends;
mod grpc;
mod leftovers;
mod mutual;
mod peers;
mod requests;
mod secured;
mod upgrades;
