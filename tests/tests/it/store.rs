//! The store under real faults: kills, full and damaged disks, several processes on one database.

mod disk;
mod fsync;
mod kill;
mod ledger;
mod processes;
mod replicas;
