//! The vocabulary: cadence, window, component, frame, rebase, input file. Pure; imports std and chrono only.
