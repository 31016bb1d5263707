//! Agents against each other: real HTTP, real libp2p, real databases; a chain in memory and small ML nodes.

mod faults;
mod network;
mod node;
mod operator;
mod peers;
mod plants;
mod requests;
