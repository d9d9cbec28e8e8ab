//! The websocket of the bridges.
