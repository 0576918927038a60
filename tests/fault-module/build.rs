//! Marks the cdylib so that `dlclose` never unloads it: counts, sessions and object numbers are one per
//! process, also for an application that loads the module, drops it and loads it again.

fn main() {
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
