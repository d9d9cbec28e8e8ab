//! Bridges: their streams, orders and health.
