//! Part of Leftfold.
