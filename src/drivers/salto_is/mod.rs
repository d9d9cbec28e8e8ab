//! SALTO SPACE by its "Industry Standard" PMS interface (v1.16).

pub mod sim;
