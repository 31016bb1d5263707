mod coverage;
mod disputes;
mod duties;
mod random;
mod reputation;
mod verdicts;
