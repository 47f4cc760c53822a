//! One scenario, one test for each number of workers.

/// `with_workers!([1, 4]: a, b)` makes tests of the scenarios `a` and `b`, which take the number of workers, with one and with
/// four. `with_workers!([1, 4], EXPRESSION; a, b)` keeps the expression's value for as long as each runs.
macro_rules! with_workers {
    (@each $scenario:ident $kept:expr, [$($workers:tt),*]) => { $( with_workers!(@of $scenario $kept, $workers); )* };
    (@of $scenario:ident $kept:expr, 1) => { with_workers!(@test $scenario $kept, with_1_worker 1); };
    (@of $scenario:ident $kept:expr, 2) => { with_workers!(@test $scenario $kept, with_2_workers 2); };
    (@of $scenario:ident $kept:expr, 4) => { with_workers!(@test $scenario $kept, with_4_workers 4); };
    (@of $scenario:ident $kept:expr, 8) => { with_workers!(@test $scenario $kept, with_8_workers 8); };
    (@test $scenario:ident $kept:expr, $name:ident $workers:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let _kept = $kept;
            super::$scenario($workers).await;
        }
    };
    ($workers:tt, $kept:expr; $($scenario:ident),* $(,)?) => { $(
        mod $scenario {
            with_workers!(@each $scenario $kept, $workers);
        }
    )* };
    ($workers:tt: $($scenario:ident),* $(,)?) => { with_workers!($workers, None::<()>; $($scenario),*); };
}
