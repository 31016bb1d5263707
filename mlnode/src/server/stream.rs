//! Server-sent events.

use axum::response::{
    sse::{Event, KeepAlive},
    IntoResponse, Response, Sse,
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use std::{convert::Infallible, time::Duration};

/// A comment after so long without an event: a client that is gone is noticed even while nothing is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Each value as one `data:` event of JSON.
pub(super) fn json_events<T: Serialize>(values: impl Stream<Item = T> + Send + 'static) -> Response {
    events(values.map(|value| json_event(&value)))
}

pub(super) fn events(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

pub(super) fn json_event<T: Serialize>(value: &T) -> Event {
    // The types sent have neither maps with other keys than strings nor failing implementations.
    Event::default().data(serde_json::to_string(value).unwrap_or_default())
}
