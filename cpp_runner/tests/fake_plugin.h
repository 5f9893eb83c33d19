// A PJRT plugin for tests: no XLA in it, three toy programs, and calls that fail when they are told
// to.
//
// A program is text, since nothing compiles it:
//
//     fake NAME OUTPUT… [donates N…]        e.g. "fake step F32:2,2,3,1 U32:2,2 donates 2"
//
// - `init`: x of image i from the seed and i alone; keys are zeros.
// - `step`: 0.9·x + 0.01·(index + 1); all else as it came.
// - `finish`: x.
#pragma once

#include <cstdint>

extern "C" {

// What the plugin is told to do.
struct FakeOrders {
  int64_t devices;      // how many it has
  int64_t fail_call;    // the call that fails, from 1; 0: none
  int64_t fail_event;   // the event that fails, from 1; 0: none
  int64_t code;         // with which PJRT_Error_Code
  int64_t table_bytes;  // how much of the table of functions it has; 0: all
  int64_t not_finite;   // whether `finish` gives images of not-a-number
};

// What it has seen.
struct FakeReport {
  int64_t live_clients, live_buffers, live_events, live_executables, live_errors;
  int64_t runs;         // of programs
  char misuse[256];     // the first thing that no correct caller does, or ""
  char failed_in[128];  // the function that was told to fail, or ""
};

// Begins anew: nothing counted, nothing alive.
void FakePluginOrder(const FakeOrders* orders);
void FakePluginReport(FakeReport* report);
}
