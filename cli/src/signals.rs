//! Ctrl-C and its kin: the files that are being written are removed before the program ends by the signal.
//!
//! A thread waits for the signals, which are blocked in every other one. It runs ordinary code, which a signal handler must not: it
//! takes the lock of the table of temporary files. Afterwards the signal gets its usual effect, so that a shell sees a program that
//! was interrupted.

/// Signals by which a user, a terminal or a batch system ends a program.
#[cfg(unix)]
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Blocks the signals for this thread and those that it starts, and starts the thread that waits for them. Signals that the caller
/// has set to be ignored (`nohup`) stay ignored. Where no thread can be started, signals end the program as before.
#[cfg(unix)]
pub(super) fn remove_files_at_the_end() {
    use std::{mem, ptr, thread};

    // SAFETY: every pointer is to a local value of the type that the call expects, and zeroed values of these plain structs of C
    // are valid before the calls that fill them.
    let set = unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in SIGNALS {
            let mut now: libc::sigaction = mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &mut now) == 0 && now.sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(&mut set, signal);
            }
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut());
        set
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: as above.
        if unsafe { libc::sigwait(&set, &mut signal) } != 0 {
            return;
        }
        nephron::files::remove_unfinished();
        // SAFETY: the default effect of these signals ends the process; nothing of it is used afterwards.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
            libc::raise(signal);
        }
    };
    if thread::Builder::new().name("signals".into()).spawn(wait).is_err() {
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) };
    }
}

/// Elsewhere the files of a program that was ended are removed by the next one that writes to their folder.
#[cfg(not(unix))]
pub(super) fn remove_files_at_the_end() {}
