//! Which port belongs to whom.

use anyhow::{bail, Result};
use std::net::TcpListener;

/// Ports of every process of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// The programs' usual ports; the n-th host has the n-th port from there. All moved up by the offset.
    Usual {
        /// Added to every port.
        offset: u16,
    },
    /// One block of [`Ports::BLOCK`] ports from here.
    Block {
        /// The first.
        base: u16,
    },
}

impl Ports {
    /// Ports of a block.
    pub const BLOCK: u16 = 200;

    /// A block in which every port is free now.
    pub fn free_block() -> Result<Self> {
        // Below the range from which the kernel takes the ports of outgoing connections (32768 on).
        let mut base = 12_000;
        while base + Self::BLOCK < 32_000 {
            if (base..base + Self::BLOCK).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Ok(Self::Block { base });
            }
            base += Self::BLOCK;
        }
        bail!("no block of {} free ports between 12000 and 32000", Self::BLOCK)
    }

    fn port(&self, usual: u16, kind: u16, index: usize) -> u16 {
        let index = index as u16;
        match self {
            Self::Usual { offset } => usual + offset + index,
            Self::Block { base } => base + kind * 20 + index,
        }
    }

    /// Public HTTP of a host.
    pub fn gateway(&self, host: usize) -> u16 {
        self.port(8000, 0, host)
    }
    /// Admin HTTP of a host.
    pub fn admin(&self, host: usize) -> u16 {
        self.port(9200, 1, host)
    }
    /// libp2p between agents.
    pub fn peer(&self, host: usize) -> u16 {
        self.port(4001, 2, host)
    }
    /// libp2p between nodes.
    pub fn p2p(&self, node: usize) -> u16 {
        self.port(30333, 3, node)
    }
    /// JSON-RPC of a node.
    pub fn rpc(&self, node: usize) -> u16 {
        self.port(9944, 4, node)
    }
    /// Prometheus of a node.
    pub fn prometheus(&self, node: usize) -> u16 {
        self.port(9615, 5, node)
    }
    /// Inference port of an ML node, counted over the whole network.
    pub fn inference(&self, ml_node: usize) -> u16 {
        self.port(5050, 6, ml_node)
    }
    /// The client's proxy.
    pub fn proxy(&self) -> u16 {
        self.port(8800, 8, 0)
    }
    /// Management port of an ML node, counted over the whole network.
    pub fn management(&self, ml_node: usize) -> u16 {
        self.port(8080, 7, ml_node)
    }
}
