//! salto_is
