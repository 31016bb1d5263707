mod conservation;
mod deposits;
mod finishing;
mod pruning;
mod settling;
mod starting;
