//! Streams over libp2p connections, in both directions.
//!
//! The published crate `libp2p-stream` holds *one* accepted stream between the connection and the application and
//! drops what comes meanwhile, which loses requests as soon as two arrive at once. This behaviour queues them, up to
//! a bound.

use libp2p::{
    core::{
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
        Endpoint,
    },
    swarm::{
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
    Multiaddr, PeerId, Stream, StreamProtocol,
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{ready, Ready},
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::sync::{mpsc, oneshot};

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// Asks for a stream; the reply is dropped when the connection ends meanwhile.
#[derive(Debug)]
pub(crate) struct OpenStream {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Stream, String>>,
}

/// Opens streams on existing connections and queues those that peers open.
#[derive(Debug)]
pub(crate) struct Behaviour {
    protocols: Arc<[StreamProtocol]>,
    accepted: mpsc::Sender<Accepted>,
    asked: VecDeque<(PeerId, OpenStream)>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Accepts these protocols; a stream that finds the queue full is dropped.
    pub(crate) fn new(protocols: &[StreamProtocol], queue: usize) -> (Self, mpsc::Receiver<Accepted>) {
        let (accepted, receiver) = mpsc::channel(queue);
        let behaviour = Self { protocols: protocols.into(), accepted, asked: VecDeque::new(), waker: None };
        (behaviour, receiver)
    }

    /// Opens a stream to a connected peer.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        protocol: StreamProtocol,
        reply: oneshot::Sender<Result<Stream, String>>,
    ) {
        self.asked.push_back((peer, OpenStream { protocol, reply }));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            protocols: self.protocols.clone(),
            accepted: self.accepted.clone(),
            asked: VecDeque::new(),
            waker: None,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.asked.pop_front() {
            Some((peer_id, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event })
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Negotiates one of several protocols and does nothing else to the stream.
#[derive(Clone, Debug)]
pub(crate) struct Protocols(Arc<[StreamProtocol]>);

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

/// The behaviour's part in one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    protocols: Arc<[StreamProtocol]>,
    accepted: mpsc::Sender<Accepted>,
    asked: VecDeque<OpenStream>,
    waker: Option<Waker>,
}

impl Handler {
    fn accept(&self, protocol: StreamProtocol, stream: Stream) {
        if self.accepted.try_send(Accepted { peer: self.peer, protocol, stream }).is_err() {
            tracing::warn!(target: "starling::peer", peer = %self.peer, "too many new streams: one was dropped");
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenStream;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, String>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        SubstreamProtocol::new(Protocols(self.protocols.clone()), ())
    }

    /// Hosts keep their connections.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        self.asked.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        match self.asked.pop_front() {
            Some(OpenStream { protocol, reply }) => {
                let protocol = SubstreamProtocol::new(Protocols([protocol].into()), reply);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.accept(protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info: reply,
            }) => {
                // Whoever asked may have given up; then the stream is dropped, which tells the peer.
                let _ = reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                let reason = match error {
                    StreamUpgradeError::Timeout => "the peer did not open the stream in time".to_owned(),
                    StreamUpgradeError::NegotiationFailed => {
                        "the peer does not speak this protocol".to_owned()
                    }
                    StreamUpgradeError::Io(error) => error.to_string(),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = reply.send(Err(reason));
            }
            _ => {}
        }
    }
}
