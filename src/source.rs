//! Where samples come from: the `Source` trait and its implementations.
