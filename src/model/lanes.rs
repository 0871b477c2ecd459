//! Parallel work whose result does not depend on the number of threads.
//!
//! Work is always dealt to the same fixed number of lanes and the lanes' results are combined in lane order, so one
//! thread and eight threads add the same numbers in the same order and give the same bits.

use std::thread;

/// How many shares work is dealt into, whatever the machine.
pub const LANES: usize = 4;

/// Runs `work` once per input and returns the results in the order of the inputs. At most `threads` threads run at
/// the same time.
pub fn run<I: Send, R: Send>(
    threads: usize,
    inputs: Vec<I>,
    work: impl Fn(I) -> R + Sync,
) -> Vec<R> {
    let threads = threads.clamp(1, inputs.len().max(1));
    if threads == 1 {
        return inputs.into_iter().map(work).collect();
    }
    let mut shares: Vec<Vec<(usize, I)>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, input) in inputs.into_iter().enumerate() {
        shares[index % threads].push((index, input));
    }
    let work = &work;
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let handles: Vec<_> = shares
            .into_iter()
            .map(|share| {
                scope.spawn(move || {
                    share
                        .into_iter()
                        .map(|(at, input)| (at, work(input)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| {
                handle
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Deals items to `LANES` lanes, round robin, keeping their order inside a lane.
pub fn deal<T>(items: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let mut lanes: Vec<Vec<T>> = (0..LANES).map(|_| Vec::new()).collect();
    for (index, item) in items.into_iter().enumerate() {
        lanes[index % LANES].push(item);
    }
    lanes
}

/// The number of threads to use where the caller did not say.
pub fn available() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .min(LANES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_input_order_for_any_number_of_threads() {
        let expected: Vec<usize> = (0..13).map(|n| n * n).collect();
        for threads in 1..6 {
            assert_eq!(run(threads, (0..13).collect(), |n: usize| n * n), expected);
        }
    }
}
