import js from '@eslint/js';
import { defineConfig } from 'eslint/config';
import globals from 'globals';
import tseslint from 'typescript-eslint';

const PRINT = 'Print through terminal.ts: text from outside may hold what a terminal obeys.';

export default defineConfig(
  { ignores: ['**/dist/**', 'coverage/**', 'api-docs/**', 'node_modules/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
    },
  },
  {
    // Text that the program prints goes through terminal.ts, which escapes what a terminal would obey. Beside it,
    // stdout.ts passes the bytes of blobs and files on, and progress.ts has a library draw its bars.
    files: ['packages/cli/src/**/*.ts'],
    ignores: ['packages/cli/src/{terminal,stdout,progress}.ts'],
    rules: {
      'no-console': 'error',
      'no-restricted-imports': [
        'error',
        {
          paths: ['process', 'node:process', 'console', 'node:console'].map((name) => ({
            name,
            message: PRINT,
          })),
        },
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: "MemberExpression[object.name='process'] > Identifier[name=/^std(out|err)$/]",
          message: PRINT,
        },
        { selector: "MemberExpression[object.name='process'][computed=true]", message: PRINT },
        { selector: "VariableDeclarator[init.name='process']", message: PRINT },
      ],
    },
  },
  {
    // chai's property assertions are expressions; test data is asserted to exist by the test itself.
    files: ['packages/*/test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unused-expressions': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  { files: ['**/*.{js,mjs}'], languageOptions: { globals: globals.node } },
);
