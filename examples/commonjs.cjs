// The same package through require().
const path = require('node:path');
const { Siglip2, inspect } = require('siglip2');

async function main() {
  const { version, cpu } = await inspect();
  console.log(`siglip2 ${version}, ${cpu.instructionSet}, ${cpu.cores} cores`);
  const model = await Siglip2.load(
    process.argv[2] ?? path.join(__dirname, '..', 'test', 'fixtures', 'checkpoints', 'naflex_hd64'),
  );
  console.log('text embedding', (await model.embedTexts('a cat')).shape);
  model.dispose();
}

main();
