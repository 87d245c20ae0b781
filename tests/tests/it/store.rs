//! The store under real trouble: kills, full and broken disks, several processes on one database.

mod disk;
mod fsync;
mod kill;
mod ledger;
mod processes;
mod replicas;
