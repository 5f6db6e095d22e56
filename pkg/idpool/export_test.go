package idpool

// RaceFactor is raceFactor, for the tests that stand outside because they use a
// database.
const RaceFactor = raceFactor
