//! All of it together: the chart installs two control planes, operators and tenants write objects, pods are admitted by the API server with
//! their sidecars, and a node runs what was admitted. Nobody enforces NetworkPolicies here: what holds, holds without them.

mod cluster;
mod escapes;
mod operators;
mod policed;
