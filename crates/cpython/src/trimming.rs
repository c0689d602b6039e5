//! Trims that environment variables request: on a signal, and after a garbage collection.
//!
//! A Python script registers our trim function as a signal handler with the `signal` module, and as
//! a callback with the `gc` module. CPython then calls the function while the calling thread holds
//! the GIL and is not inside the heap. C code alone could do neither. A signal handler that is
//! installed from C must not trim the heap, because the signal may interrupt a thread in the middle
//! of an allocation. CPython reports garbage collections only to Python callbacks.
//!
//! The script that registers our trim function can run only after the interpreter has started, but
//! CPython offers no callback for this moment. We therefore add an audit hook, which CPython calls
//! at every import and at many other events. The first time that CPython calls the hook in a
//! started interpreter, the hook asks CPython to run the script in the main thread as soon as
//! possible (`Py_AddPendingCall`).

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{
    abi::{CPython, MethodDef, ScriptFunctions},
    settings::Settings,
};

/// `Py_file_input` in CPython's `Include/compile.h`.
const FILE_INPUT: c_int = 257;

/// `METH_VARARGS` in CPython's `Include/methodobject.h`.
const VARARGS: c_int = 1;

/// The name of our function in the script.
const TRIM: &CStr = c"trim";

struct Watch {
    python: CPython,
    functions: ScriptFunctions,
    script: CString,
    is_scheduled: AtomicBool,
    host: Host,
}

/// The functions of this library that the script needs.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    /// Trims the heap of the current interpreter, whose GIL the caller must hold.
    pub(crate) trim: unsafe fn() -> usize,
    /// Prints one line on stderr.
    pub(crate) say: fn(&str),
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// Prepares the trims that the settings request. Must be called before CPython is initialised.
pub(crate) fn watch(python: &CPython, settings: &Settings, host: Host) {
    let Some(script) = script(settings) else { return };
    let Some(functions) = ScriptFunctions::of_process() else {
        return (host.say)("cannot trim by itself: this CPython lacks a function");
    };
    let is_scheduled = AtomicBool::new(false);
    let python = *python;
    let watch = WATCH.get_or_init(|| Watch { python, functions, script, is_scheduled, host });
    // SAFETY: the hook has the expected type, and may be added before CPython is initialised.
    unsafe { (watch.functions.add_audit_hook)(schedule, ptr::null_mut()) };
}

/// Returns the script that registers the function `trim`, or `None` if the settings request no
/// trim.
fn script(settings: &Settings) -> Option<CString> {
    let mut lines = String::new();
    if let Some(signal) = settings.trim_signal {
        lines += &format!("import signal\nsignal.signal({signal}, lambda *_: trim())\n");
    }
    if settings.trim_after_gc {
        lines += "import gc\n\
            def after(phase, info):\n    \
                if phase == 'stop' and info['generation'] == 2:\n        \
                    trim()\n\
            gc.callbacks.append(after)\n";
    }
    if lines.is_empty() { None } else { CString::new(lines).ok() }
}

/// Schedules the script as soon as CPython is initialised.
unsafe extern "C" fn schedule(_event: *const c_char, _args: *mut c_void, _: *mut c_void) -> c_int {
    let Some(watch) = WATCH.get() else { return 0 };
    if watch.is_scheduled.load(Relaxed) || !watch.python.is_initialized() {
        return 0;
    }
    if !watch.is_scheduled.swap(true, Relaxed) {
        // SAFETY: the function may be called by any thread, and `run` has the expected type.
        let outcome = unsafe { (watch.functions.add_pending_call)(run, ptr::null_mut()) };
        watch.is_scheduled.store(outcome == 0, Relaxed);
    }
    0
}

/// Runs the script. CPython calls this function in its main thread, which holds the GIL.
unsafe extern "C" fn run(_: *mut c_void) -> c_int {
    if let Some(watch) = WATCH.get() {
        let functions = &watch.functions;
        let method = MethodDef {
            name: TRIM.as_ptr(),
            call: trim,
            flags: VARARGS,
            doc: c"Returns unused memory to the system.".as_ptr(),
        };
        let method: &'static MethodDef = Box::leak(Box::new(method));
        // SAFETY: this thread holds the GIL. `method` lives forever, and the script ends with a zero.
        let has_run = unsafe {
            let globals = (functions.dict_new)();
            let function = (functions.function_new)(method, ptr::null_mut(), ptr::null_mut());
            let is_ready = !globals.is_null()
                && !function.is_null()
                && (functions.dict_set_item)(globals, TRIM.as_ptr(), function) == 0;
            let script = watch.script.as_ptr();
            let run = functions.run_string;
            is_ready && !run(script, FILE_INPUT, globals, globals, ptr::null_mut()).is_null()
        };
        if !has_run {
            // SAFETY: this thread holds the GIL.
            unsafe { (functions.clear_error)() };
            (watch.host.say)("cannot trim by itself: this CPython refused the callback");
        }
    }
    0
}

/// The function `trim` of the script. It returns the number of bytes that the heap returned.
unsafe extern "C" fn trim(_module: *mut c_void, _args: *mut c_void) -> *mut c_void {
    let Some(watch) = WATCH.get() else { return ptr::null_mut() };
    // SAFETY: CPython calls the function under the GIL.
    let bytes = unsafe { (watch.host.trim)() };
    // SAFETY: as above.
    unsafe { (watch.functions.int_new)(bytes) }
}
