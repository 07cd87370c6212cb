// Reads what nvcc compiled without a disassembler: a cubin is a 64-bit ELF file whose sections .text.KERNEL hold
// instructions of 16 bytes. The low 9 bits of an instruction name the operation; loads and stores say their width in
// three bits of the upper half. check-kernels.mjs compiles probes first and refuses to count on an architecture where
// they do not come out as they must.

/** Operations by the low 9 bits of an instruction, the same from sm_80 to sm_120. */
const OPERATIONS = new Map([
  [0x03c, 'HMMA'], // matrix product of a warp
  [0x1f0, 'HGMMA'], // of a warp group
  [0x03b, 'LDSM'], // load_matrices
  [0x1ae, 'LDGSTS'], // asynchronous copy, global to shared
  [0x181, 'LDG'],
  [0x186, 'STG'],
  [0x183, 'LDL'], // local memory
  [0x187, 'STL'],
  [0x11d, 'BAR'],
  [0x108, 'MUFU'], // special functions
]);
const MEMORY = new Set(['LDG', 'STG', 'LDGSTS']);
const WIDEST = 6; // 16 bytes

/** The sections .text.KERNEL of a cubin: kernel (mangled) → its instructions as a DataView. */
function textSections(cubin) {
  const view = new DataView(cubin.buffer, cubin.byteOffset, cubin.byteLength);
  if (view.getUint32(0) !== 0x7f454c46 || cubin[4] !== 2) throw new Error('not a 64-bit ELF file');
  const table = Number(view.getBigUint64(40, true));
  const [size, count, namesIndex] = [58, 60, 62].map((offset) => view.getUint16(offset, true));
  const section = (index) => {
    const at = table + index * size;
    return {
      name: view.getUint32(at, true),
      offset: Number(view.getBigUint64(at + 24, true)),
      bytes: Number(view.getBigUint64(at + 32, true)),
    };
  };
  const names = section(namesIndex);
  const found = new Map();
  for (let index = 0; index < count; index++) {
    const { name, offset, bytes } = section(index);
    const start = names.offset + name;
    const text = cubin.toString('latin1', start, cubin.indexOf(0, start));
    if (text.startsWith('.text.')) found.set(text.slice(6), new DataView(view.buffer, view.byteOffset + offset, bytes));
  }
  return found;
}

/**
 * Counts instructions of every kernel in a cubin.
 * @param cubin the file's bytes
 * @param architecture its number, 80 for sm_80
 * @returns kernel (mangled) → { instructions, tensor, local, wide, … }: all instructions, products on tensor cores,
 *   local loads and stores, 16-byte accesses to global memory, and a count for each operation above
 */
export function countInstructions(cubin, architecture) {
  const kernels = new Map();
  for (const [kernel, code] of textSections(cubin)) {
    const counts = { instructions: code.byteLength / 16, tensor: 0, local: 0, wide: 0 };
    for (const name of OPERATIONS.values()) counts[name] = 0;
    for (let at = 0; at < code.byteLength; at += 16) {
      const name = OPERATIONS.get(code.getUint32(at, true) & 0x1ff);
      if (name === undefined) continue;
      counts[name]++;
      if (name === 'HMMA' || name === 'HGMMA') counts.tensor++;
      if (name === 'LDL' || name === 'STL') counts.local++;
      const shift = name === 'LDGSTS' && architecture >= 100 ? 10 : 9;
      if (MEMORY.has(name) && ((code.getUint32(at + 8, true) >> shift) & 7) === WIDEST) counts.wide++;
    }
    kernels.set(kernel, counts);
  }
  return kernels;
}
