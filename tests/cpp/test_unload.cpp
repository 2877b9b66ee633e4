// Opens a plugin that holds the library, blends, closes it, opens it again, and ends, with the library's threads there
// all the while: the code that they run must stay. Returns 0 if all went well.
#include <dlfcn.h>

#include <cstdio>
#include <initializer_list>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  for (const int threads : {1, 3, 2, 4}) {
    void* plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (plugin == nullptr) {
      std::puts(dlerror());
      return 1;
    }
    auto* const blend_something = reinterpret_cast<int (*)(int)>(dlsym(plugin, "blend_something"));
    if (blend_something == nullptr || blend_something(threads) != 50) return 1;
    dlclose(plugin);
  }
  return 0;
}
