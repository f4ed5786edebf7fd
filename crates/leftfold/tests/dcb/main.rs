//! The situations by which dynamic consistency boundaries are usually explained, as small programs.
//!
//! The situations are those of <https://dcb.events/examples>; words, data and code are our own.

mod account_by_tag;
mod choir;
mod double_booking;
mod handles;
mod invoice_numbers;
mod menu_prices;
mod newsletter;
