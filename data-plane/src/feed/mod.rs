//! The client of the route feed.
