// check-artifacts FILE…: opens each artifact and prints "exit code<TAB>message", a line a file. For
// tests that damage an artifact in thousands of ways.

#include <iostream>

#include "artifact.h"
#include "error.h"

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    try {
      diffusion_sampler::Artifact::Open(argv[i]);
      std::cout << "0\t\n";
    } catch (const diffusion_sampler::Error& error) {
      std::cout << static_cast<int>(error.code()) << "\t" << error.what() << "\n";
    }
  }
  return 0;
}
