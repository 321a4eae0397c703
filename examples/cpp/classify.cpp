// Classify an image with a TorchScript program that trainkit exported:  ./classify BUNDLE IMAGE.ppm
//
// The program holds the preprocessing, so that the pixels go in as they are: uint8, (1, C, H, W). IMAGE is a binary
// PPM (colour, P6) or PGM (grey, P5): `python -c "from PIL import Image; Image.open('x.png').save('x.ppm')"` makes one.
#include <torch/script.h>

#include <cctype>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

// The next whole number of a PNM header; comments start with #.
static int next_number(std::istream& in) {
    while (in >> std::ws && in.peek() == '#') in.ignore(1 << 20, '\n');
    int value = 0;
    if (!(in >> value) || value <= 0) throw std::runtime_error("damaged image header");
    return value;
}

// A binary PGM or PPM file as uint8 (1, C, H, W).
static torch::Tensor read_image(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::string magic(2, ' ');
    if (!in.read(magic.data(), 2) || (magic != "P5" && magic != "P6"))
        throw std::runtime_error(path + " is not a binary PGM or PPM image");
    const int channels = magic == "P6" ? 3 : 1;
    const int width = next_number(in), height = next_number(in), largest = next_number(in);
    if (largest != 255) throw std::runtime_error(path + " does not have 8 bits a channel");
    in.get();  // the one blank after the header
    torch::Tensor pixels = torch::empty({height, width, channels}, torch::kUInt8);
    if (!in.read(reinterpret_cast<char*>(pixels.data_ptr<uint8_t>()), pixels.numel()))
        throw std::runtime_error(path + " is cut short");
    return pixels.permute({2, 0, 1}).unsqueeze(0).contiguous();
}

// labels.json: a list of strings. Knows \" and \\; other escapes stay as they are.
static std::vector<std::string> read_labels(const std::string& path) {
    std::ifstream in(path);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    std::vector<std::string> labels;
    bool inside = false;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"') {
            inside = !inside;
            if (inside) labels.emplace_back();
        } else if (inside) {
            if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
            labels.back() += text[i];
        }
    }
    return labels;
}

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: classify BUNDLE IMAGE.ppm\n";
        return 2;
    }
    try {
        const std::string bundle = argv[1];
        torch::jit::Module program = torch::jit::load(bundle + "/model.pt", torch::kCPU);
        program.eval();
        torch::InferenceMode no_gradients;
        const torch::Tensor probabilities = program.forward({read_image(argv[2])}).toTensor()[0];
        const auto best = probabilities.argmax().item<int64_t>();
        std::cout.precision(9);
        std::cout << read_labels(bundle + "/labels.json").at(best) << " " << probabilities[best].item<float>() << "\n";
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << "\n";
        return 1;
    }
}
