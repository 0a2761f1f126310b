//! Starts the real binaries, plays everybody around them, and says what came of it. Scenarios read as what an operator, a client or a
//! workload would see; how that is arranged stands here.
//!
//! ```text
//! site            a directory of objects, an issuer's key, its tokens
//! control_plane   `ringfence up`, `ringfence serve`, one-shot commands
//! replica         `ringfence serve --kubernetes`, one of several
//! acme            the control plane, a sidecar and a workload together
//! egress          the control plane and a sidecar that is asked as a proxy
//! sidecar         `ringfence-proxy run`, and what its admin endpoint says
//! relay           between two sidecars of which one takes over from the other: what they say, as far as a test lets it through
//! http  raw       clients: whole requests; bytes
//! upstream        the workload behind a sidecar, or what it asks for outside: records, answers as its path says
//! dns  tls  echo  a DNS server whose answers change; a certificate authority and its clients; a server of no known protocol
//! liar            a DNS server that says whatever a test wants, octet by octet
//! primary  named  who policy zones are transferred from: one whose zone a test may change; BIND
//! ads             a sidecar's or an outsider's delta stream, message by message
//! traffic         requests one after another
//! ports           ports that are named before somebody listens there
//! link            the network between a sidecar and its control plane, which may fail
//! crowd           a thousand sidecars in one process
//! collector       an OTLP collector
//! corpora         the corpora beside the repository
//! kubernetes      a cluster without nodes, and anybody at its API server: kubectl, helm
//! chart           the chart that installs the control plane there
//! node            runs the pods of such a cluster: their containers, volumes, networks; its Services (needs root)
//! process  procfs processes, their output, their memory
//! netns  packet   a pod and the world outside of it: two network namespaces; frames past the kernel's IP (needs root)
//! pod  canary     a captured workload and its sidecar in that pod; what outside sees every packet that gets out
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness that cannot go on fails the test")]
#![allow(clippy::print_stderr, reason = "a failed test shows what its processes said")]

pub mod acme;
pub mod ads;
pub mod binaries;
pub mod canary;
pub mod chart;
pub mod collector;
pub mod control_plane;
pub mod corpora;
pub mod crowd;
pub mod dns;
pub mod echo;
pub mod egress;
pub mod http;
pub mod kubernetes;
pub mod liar;
pub mod link;
pub mod named;
pub mod netns;
pub mod node;
pub mod packet;
pub mod pod;
pub mod ports;
pub mod primary;
pub mod process;
pub mod procfs;
pub mod raw;
pub mod relay;
pub mod replica;
pub mod sidecar;
pub mod site;
pub mod tls;
pub mod token;
pub mod traffic;
pub mod upstream;
pub mod wait;

pub use acme::Acme;
pub use canary::Canary;
pub use control_plane::{Serve, ServeTls, Up, ringfence};
pub use crowd::Crowd;
pub use dns::Dns;
pub use echo::Echo;
pub use egress::Egress;
pub use kubernetes::KubeApi;
pub use liar::Liar;
pub use link::Link;
pub use named::Named;
pub use netns::Net;
pub use node::Node;
pub use pod::Pod;
pub use ports::free_port;
pub use primary::Primary;
pub use relay::Relay;
pub use replica::Replica;
pub use sidecar::Sidecar;
pub use site::Site;
pub use traffic::Traffic;
pub use upstream::Upstream;
pub use wait::{DEADLINE, eventually, took_at_most};
