//! The control plane: what operators write becomes resources, and resources reach the sidecars that they concern.

pub mod spec;

pub mod compile;

pub mod fleet;

pub mod cli;

pub mod quickstart;
