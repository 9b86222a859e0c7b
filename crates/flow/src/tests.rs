//! Attacks on the fold: each stage's preconditions, then random sequences over all of them.

mod approvals;
mod breakers;
mod changes;
mod genesis;
mod inventory;
mod jobs;
mod landing;
mod order;
mod queue;
mod random;
mod releases;
mod restores;
mod reviews;
mod rollouts;
mod runs;
mod tasks;
mod together;
mod world;
