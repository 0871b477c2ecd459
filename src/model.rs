//! The detector: preprocess, fit, score, evaluate, events, and a versioned model file.
