//! Pictures and the report of a diagnosis.
