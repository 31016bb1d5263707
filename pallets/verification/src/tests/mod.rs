mod coverage;
mod disputes;
mod duties;
mod fraud;
mod random;
mod reputation;
mod suspicion;
mod verdicts;
