//! A pretend SALTO SPACE server.
