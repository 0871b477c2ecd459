//! The Lookout-compatible service: protocol, state, operations and the runner that scores windows.
